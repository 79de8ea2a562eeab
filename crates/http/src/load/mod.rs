//! What a server says of its load along with each response.

mod header;
mod layer;
mod meter;

pub use self::{
    header::{LOAD_HEADER, load_of, set_load},
    layer::{ReportLoad, ReportLoadFuture, ReportLoadLayer},
    meter::{Meter, Metered},
};
