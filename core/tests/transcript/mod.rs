//! What runs a transcript: its file, the world it drives, and what is checked after every step.

pub mod chaos;
pub mod check;
pub mod command;
pub mod disk;
pub mod expect;
pub mod file;
pub mod forge;
pub mod names;
pub mod print;
pub mod slot;
pub mod world;
