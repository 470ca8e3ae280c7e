//! bailey-error
