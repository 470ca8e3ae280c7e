//! stack-tests
