//! bailey-roots
