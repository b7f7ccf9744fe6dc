mod limits;
mod node;
mod repair;
mod rig;
mod state;
