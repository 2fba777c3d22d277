//! Load by wrk that compares every body.

use std::fs;

use crate::bed::{Bed, Object};

/// Loads the server with requests for one object over so many connections, for so many seconds. Every response must be right,
/// and no connection may break; returns how many responses there were.
pub fn wrk(bed: &Bed, server: &str, object: &Object, connections: usize, seconds: u32) -> u64 {
    let script = bed.downloads.join("compare.lua");
    let path = bed.folder.join(&object.name);
    fs::write(
        &script,
        format!(
            "local file = io.open({path:?}, 'rb')
local expected = file:read('*a')
file:close()
right, wrong = 0, 0
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function response(status, headers, body)
  if status == 200 and body == expected then right = right + 1 else wrong = wrong + 1 end
end
function done(summary)
  for _, thread in ipairs(threads) do
    local e = summary.errors
    print('compared', thread:get('right'), thread:get('wrong'), e.connect + e.read + e.write + e.timeout)
  end
end
"
        ),
    )
    .unwrap();
    let said = bed.run(
        "wrk",
        &[
            "--threads=1",
            &format!("--connections={connections}"),
            &format!("--duration={seconds}s"),
            // Not what is measured here: a lost segment costs a moment.
            "--timeout=60s",
            &format!("--script={}", script.display()),
            &format!("http://{server}/{}", object.name),
        ],
    );
    let line = said.lines().find_map(|line| line.strip_prefix("compared")).unwrap_or_else(|| panic!("{said}"));
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse::<f64>().unwrap() as u64).collect();
    let [right, wrong, errors] = numbers[..] else { panic!("{said}") };
    assert!(right > 0 && wrong == 0 && errors == 0, "{said}");
    right
}
