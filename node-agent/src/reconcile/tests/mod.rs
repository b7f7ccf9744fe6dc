mod limits;
mod node;
mod repair;
mod rig;
mod rotation;
mod scrub;
mod state;
