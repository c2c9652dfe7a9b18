//! Vision tools, their limits, their server (MCP and HTTP) and their client.
