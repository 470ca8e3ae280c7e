//! bailey-mesh
