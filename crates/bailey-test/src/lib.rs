//! bailey-test
