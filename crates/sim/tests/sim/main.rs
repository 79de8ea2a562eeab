//! The simulation against what is known without it: theory, arithmetic, and itself.

mod endings;
mod faults;
mod repeat;
mod theory;
