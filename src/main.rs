//! mmchat
fn main() {}
