mod enrol;
mod rig;
mod session;
