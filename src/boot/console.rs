//! Lines for people on the machine's console: plain text.

use core::fmt::{self, Write};

use super::machine::console::Console;

/// Writes a line to the console.
pub fn line(text: fmt::Arguments<'_>) {
    write(Console::Usual, text);
}

/// Writes a line wherever somebody may look for it: why the machine stops.
pub fn report(text: fmt::Arguments<'_>) {
    write(Console::Everywhere, text);
}

fn write(mut console: Console, text: fmt::Arguments<'_>) {
    // The console takes everything; an error could only come from a value's own formatting.
    let _ = console.write_fmt(text);
    let _ = console.write_str("\n");
}

/// Prints a line on the console; as `format!`.
macro_rules! say {
    ($($argument:tt)*) => { $crate::boot::console::line(format_args!($($argument)*)) };
}
pub(crate) use say;
