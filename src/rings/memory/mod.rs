//! Devices in memory, with Xen's limits: simulator, load generator and user-mode network stand on them.
