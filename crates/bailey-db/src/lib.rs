//! bailey-db
