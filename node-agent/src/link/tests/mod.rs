mod enrol;
mod rig;
mod session;
mod settings;
