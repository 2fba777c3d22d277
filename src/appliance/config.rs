//! Sizes and limits of an appliance, validated.

use core::fmt;

use crate::http;
use crate::net::{NetworkConfig, NetworkConfigError};
use crate::rings::PAGE_BYTES;
use crate::tcp_gso;

/// Least size of the cache: some chunks of the largest usual size, so that one reader and its read-ahead have room.
pub const MIN_CACHE_BYTES: usize = 1 << 20;

/// Least size of the packet pool: some response heads for each of a few hundred connections.
pub const MIN_PACKET_BYTES: usize = 256 << 10;

/// How an appliance is to be built. [`Default`] suits a small machine: 64 MiB of cache, 100,000 connections at most.
#[derive(Clone, Debug)]
pub struct ApplianceConfig {
    /// Addresses and ports. Default: port 80 at the IPv6 link-local address alone.
    pub network: NetworkConfig,
    /// Limits of the serving TCP.
    pub tcp: tcp_gso::Config,
    /// Limits of HTTP.
    pub http: http::Config,
    /// Memory for the chunk cache in bytes, whole pages of which are used. Default 64 MiB.
    pub cache_bytes: usize,
    /// Memory for response heads in bytes. Default 8 MiB.
    pub packet_bytes: usize,
    /// Most memory for a volume's directory in bytes; an object takes about 70 and its name. Default 256 MiB.
    pub directory_bytes: usize,
    /// Most frames received in one round of the event loop, so that other work gets its turn. Default 128.
    pub receive_budget: usize,
}

impl Default for ApplianceConfig {
    fn default() -> Self {
        Self {
            network: NetworkConfig::default(),
            tcp: tcp_gso::Config::default(),
            http: http::Config::default(),
            cache_bytes: 64 << 20,
            packet_bytes: 8 << 20,
            directory_bytes: 256 << 20,
            receive_budget: 128,
        }
    }
}

/// What is wrong with an [`ApplianceConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Addresses or ports.
    Network(NetworkConfigError),
    /// The cache is too small, or larger than a page pool can be.
    CacheBytes(usize),
    /// The packet pool is too small, or larger than a page pool can be.
    PacketBytes(usize),
    /// Nobody could connect.
    NoConnections,
    /// A request that HTTP allows would not fit TCP's receive buffer.
    ReceiveBuffer {
        /// The longest request head in bytes.
        head_bytes: usize,
        /// The receive buffer in bytes.
        buffer_bytes: usize,
    },
    /// Nothing would ever be received.
    NoReceiveBudget,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(error) => error.fmt(f),
            Self::CacheBytes(bytes) => {
                write!(
                    f,
                    "a cache of {bytes} bytes does not work: give it at least {MIN_CACHE_BYTES} (1 MiB), at most 16 TiB"
                )
            }
            Self::PacketBytes(bytes) => write!(
                f,
                "a packet pool of {bytes} bytes does not work: give it at least {MIN_PACKET_BYTES} (256 KiB), at most 16 TiB"
            ),
            Self::NoConnections => {
                f.write_str("with room for 0 connections nobody could be served: allow at least one")
            }
            Self::ReceiveBuffer { head_bytes, buffer_bytes } => write!(
                f,
                "request heads of {head_bytes} bytes don't fit TCP's receive buffers of {buffer_bytes}: allow shorter heads or \
                 larger buffers"
            ),
            Self::NoReceiveBudget => f.write_str("a receive budget of 0 frames receives nothing: allow at least one"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl From<NetworkConfigError> for ConfigError {
    fn from(error: NetworkConfigError) -> Self {
        Self::Network(error)
    }
}

impl ApplianceConfig {
    /// Checks everything that does not depend on a device.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.network.validate()?;
        let fits = |bytes: usize, least: usize| bytes >= least && bytes / PAGE_BYTES < u32::MAX as usize;
        if !fits(self.cache_bytes, MIN_CACHE_BYTES) {
            return Err(ConfigError::CacheBytes(self.cache_bytes));
        }
        if !fits(self.packet_bytes, MIN_PACKET_BYTES) {
            return Err(ConfigError::PacketBytes(self.packet_bytes));
        }
        if self.tcp.max_connections == 0 {
            return Err(ConfigError::NoConnections);
        }
        let (head_bytes, buffer_bytes) = (self.http.max_head_bytes, self.tcp.receive_buffer_bytes);
        if head_bytes > buffer_bytes {
            return Err(ConfigError::ReceiveBuffer { head_bytes, buffer_bytes });
        }
        if self.receive_budget == 0 {
            return Err(ConfigError::NoReceiveBudget);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn the_default_is_valid_and_bad_sizes_are_explained() {
        let good = ApplianceConfig::default();
        assert_eq!(good.validate(), Ok(()));
        let mut bad = good.clone();
        bad.cache_bytes = 4096;
        assert!(bad.validate().unwrap_err().to_string().contains("1 MiB"));
        let mut bad = good.clone();
        bad.cache_bytes = usize::MAX;
        assert_eq!(bad.validate(), Err(ConfigError::CacheBytes(usize::MAX)));
        let mut bad = good.clone();
        bad.packet_bytes = 0;
        assert_eq!(bad.validate(), Err(ConfigError::PacketBytes(0)));
        let mut bad = good.clone();
        bad.tcp.max_connections = 0;
        assert_eq!(bad.validate(), Err(ConfigError::NoConnections));
        let mut bad = good.clone();
        bad.receive_budget = 0;
        assert_eq!(bad.validate(), Err(ConfigError::NoReceiveBudget));
        let mut bad = good.clone();
        bad.http.max_head_bytes = 1 << 20;
        assert!(matches!(bad.validate(), Err(ConfigError::ReceiveBuffer { .. })));
        let mut bad = good;
        bad.network.serving_port = 0;
        assert_eq!(bad.validate(), Err(ConfigError::Network(NetworkConfigError::PortZero)));
    }
}
