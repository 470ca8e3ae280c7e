//! bailey-service
