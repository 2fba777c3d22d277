//! Base address registers: their sizes, and addresses for those that the firmware left without (PCI Local Bus 3.0 §6.2.5).

use core::ops::Range;

use super::function::Function;
use super::{PciError, PciMemory};

/// BARs of a function that is no bridge.
pub(super) const BARS: u8 = 6;

/// BAR bits: I/O space, and the type field's value for 64-bit addresses.
const IO_SPACE: u32 = 1;
const TYPE_MASK: u32 = 6;
const TYPE_64_BIT: u32 = 4;
/// The lower bits of a memory BAR, which are no address.
const FLAGS_MASK: u32 = 15;

/// Addresses for BARs.
pub(super) struct Window<'a> {
    memory: &'a PciMemory,
    next: u64,
}

impl<'a> Window<'a> {
    pub fn new(memory: &'a PciMemory) -> Self {
        Self { memory, next: memory.window.start }
    }

    /// The next free address for a BAR of `bytes` bytes (a power of two), aligned to its size as BARs are.
    fn take(&mut self, bytes: u64) -> Option<u64> {
        let start = self.next.checked_next_multiple_of(bytes)?;
        let end = start.checked_add(bytes)?;
        if end > self.memory.window.end || !self.is_mapped(start, bytes) {
            return None;
        }
        self.next = end;
        Some(start)
    }

    fn is_mapped(&self, start: u64, bytes: u64) -> bool {
        let Range { start: first, end } = self.memory.mapped;
        first <= start && start.checked_add(bytes).is_some_and(|last| last <= end)
    }
}

/// Where a function's memory BARs lie, by number; empty for those that it does not have.
pub(super) type MemoryBars = [Range<u64>; BARS as usize];

/// Sizes the function's memory BARs and sees to it that each has an address. Behind bridges nothing is moved: what lies there is
/// routed by the bridge's windows. The function does not answer at its BARs meanwhile, and does afterwards.
pub(super) fn assign(function: &mut Function<'_>, window: &mut Window<'_>) -> Result<MemoryBars, PciError> {
    let mut bars = MemoryBars::default();
    if !function.is_endpoint() {
        return Ok(bars);
    }
    function.set_memory_space(false);
    let mut bar = 0;
    while bar < BARS {
        let low = function.bar(bar);
        if low & IO_SPACE != 0 {
            bar += 1;
            continue;
        }
        let wide = low & TYPE_MASK == TYPE_64_BIT && bar + 1 < BARS;
        let high = if wide { function.bar(bar + 1) } else { 0 };
        function.set_bar(bar, u32::MAX);
        let low_mask = function.bar(bar) & !FLAGS_MASK;
        function.set_bar(bar, low);
        let high_mask = if wide {
            function.set_bar(bar + 1, u32::MAX);
            let mask = function.bar(bar + 1);
            function.set_bar(bar + 1, high);
            mask
        } else {
            u32::MAX
        };
        let mask = u64::from(high_mask) << 32 | u64::from(low_mask);
        if low_mask != 0 || (wide && high_mask != 0) {
            // The lowest bit that can be set is the size.
            let bytes = 1 << mask.trailing_zeros();
            let start = u64::from(high) << 32 | u64::from(low & !FLAGS_MASK);
            let usable = start != 0 && window.is_mapped(start, bytes);
            let start = if usable {
                start
            } else {
                let moved = if function.at.bus == 0 { window.take(bytes) } else { None };
                let moved = moved.filter(|start| wide || *start >> 32 == 0);
                let start = moved.ok_or(PciError::NoAddress { bar, bytes })?;
                function.set_bar(bar, start as u32);
                if wide {
                    function.set_bar(bar + 1, (start >> 32) as u32);
                }
                start
            };
            bars[usize::from(bar)] = start..start + bytes;
        }
        bar += if wide { 2 } else { 1 };
    }
    function.set_memory_space(true);
    Ok(bars)
}
