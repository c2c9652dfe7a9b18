//! Pure scorers: answer extraction, mathematical equality, choices, format and tool use.
