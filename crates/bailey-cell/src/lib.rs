//! bailey-cell
