//! bailey-config
