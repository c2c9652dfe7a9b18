//! Procedural task worlds with exact ground truth: charts, geometry, counting, paths, patterns.
