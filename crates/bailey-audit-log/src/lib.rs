//! bailey-audit-log
