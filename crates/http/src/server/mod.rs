//! What a server needs of the mesh.

mod inherited;

pub use self::inherited::{Inherited, Inherits, detached};
