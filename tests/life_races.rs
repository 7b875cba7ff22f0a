//! Later.
#![allow(missing_docs)]
