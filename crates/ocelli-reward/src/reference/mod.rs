//! Official scoring rules as published, with their faults, one file per benchmark.
//!
//! A number in a paper was made by one of these. Strict scoring is [`crate::verify()`]; the difference between the
//! two, item by item, is a result in itself. Each file names the program and commit it follows and lists the faults
//! that it keeps.

pub mod chartqa;
pub mod csvqa;
pub mod emma;
pub mod gsm8k;
pub mod latex_value;
pub mod mathv;
pub mod mathvista;
pub mod mmmu;
pub mod python;
pub mod yes_no;
