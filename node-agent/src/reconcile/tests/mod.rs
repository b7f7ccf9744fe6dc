mod node;
mod rig;
mod state;
