//! What the rooms log: macros with one meaning and two ways out.
//!
//! In a process they are the `log` crate's. In the kernel each message becomes a defmt frame in the [trace](crate::boot::trace),
//! of which the text stays behind in the ELF; warnings and errors go to the `log` crate besides, whose back end there is the
//! console.
//!
//! The placeholder is `{}` alone, the arguments follow the text, and each is something with `Display`: it is what both sides
//! understand. An argument may be evaluated twice, or not at all. (The parentheses around it: defmt's macro loses its bounds.)

/// An error: something does not work, and will not by itself.
macro_rules! error {
    ($text:literal $(, $argument:expr)* $(,)?) => {{
        #[cfg(feature = "kernel")]
        ::defmt::error!($text $(, ::defmt::Display2Format(&($argument)))*);
        ::log::error!($text $(, $argument)*);
    }};
}

/// A warning: something went wrong, and work goes on.
macro_rules! warn {
    ($text:literal $(, $argument:expr)* $(,)?) => {{
        #[cfg(feature = "kernel")]
        ::defmt::warn!($text $(, ::defmt::Display2Format(&($argument)))*);
        ::log::warn!($text $(, $argument)*);
    }};
}

/// Something that an operator who looks back wants to know. Never once a request.
macro_rules! info {
    ($text:literal $(, $argument:expr)* $(,)?) => {{
        #[cfg(feature = "kernel")]
        ::defmt::info!($text $(, ::defmt::Display2Format(&($argument)))*);
        #[cfg(not(feature = "kernel"))]
        ::log::info!($text $(, $argument)*);
    }};
}

/// What helps to find a fault. A kernel has it only if it was built with it (`DEFMT_LOG=debug`).
macro_rules! debug {
    ($text:literal $(, $argument:expr)* $(,)?) => {{
        #[cfg(feature = "kernel")]
        ::defmt::debug!($text $(, ::defmt::Display2Format(&($argument)))*);
        #[cfg(not(feature = "kernel"))]
        ::log::debug!($text $(, $argument)*);
    }};
}
