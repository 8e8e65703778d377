//! The TUN device and the offloads that make one system call carry a whole train of packets.
//!
//! `device` opens and drives the device, `virtio` is the header that travels before each packet, `split` cuts the kernel's
//! super-packets into segments as they are sealed, `coalesce` glues segments together again before they are written,
//! `checksum` is the arithmetic of both, `netlink` keeps super-packets as large as one UDP send carries.

pub mod checksum;
pub mod coalesce;
pub mod device;
mod netlink;
pub mod split;
pub mod virtio;

pub use coalesce::Coalescer;
pub use device::{Device, Features, OpenError};
pub use split::Segments;
