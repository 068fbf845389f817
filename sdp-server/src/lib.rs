pub mod events;
pub mod store;
