//! What may be set when a collection is opened.

use super::log;
use crate::CodeKind;

/// How a collection uses memory, disk and processor. Not kept: each opening gives its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Records of the mutable segment, 1 to 1,048,576.
    pub mutable_rows: usize,
    /// Frozen segments that may wait to be sealed, at least 1; when there are more, writes wait.
    pub frozen_max: usize,
    /// A new log file begins when the last one has so many bytes.
    pub log_file_bytes: u64,
    /// Log that is kept for followers although segments have it, in bytes.
    pub log_tail_bytes: u64,
    /// How the vectors of segments that are built from now on are coded in memory. Those that are there
    /// stay as they are until they are merged.
    pub codes: CodeKind,
    /// Threads of a build, 1 to 64: sealing and compaction may each have so many at once. The segment is
    /// the same for any number.
    pub build_threads: usize,
    /// Share of their time that the threads of compaction may take, 1 to 100 percent: they rest in
    /// proportion while they build. Sealing goes as writes come.
    pub cpu_percent: u32,
    /// A segment with a greater share of dead rows is written anew, in percent.
    pub dead_percent_max: usize,
    /// As many segments of about the same size become one, at least 2.
    pub merge_fan_in: usize,
    /// Merging makes no segment with more rows.
    pub segment_rows_max: usize,
    /// Candidates kept while a graph is searched, where a query does not say.
    pub ef: usize,
    /// Seal and compact in the background. Off, it happens only when asked for: for tools and tests.
    pub background: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mutable_rows: 16_384,
            frozen_max: 4,
            log_file_bytes: 64 << 20,
            log_tail_bytes: 256 << 20,
            codes: CodeKind::Bytes,
            build_threads: 1,
            cpu_percent: 50,
            dead_percent_max: 20,
            merge_fan_in: 4,
            segment_rows_max: 4 << 20,
            ef: 64,
            background: true,
        }
    }
}

impl Options {
    /// With every number where it may be.
    pub(super) fn clamped(mut self) -> Self {
        self.mutable_rows = self.mutable_rows.clamp(1, 1 << 20);
        self.frozen_max = self.frozen_max.max(1);
        // A file may grow by one group beyond it.
        let most = log::FILE_BYTES_MAX / 2;
        self.log_file_bytes = self.log_file_bytes.clamp(1 << 10, most);
        self.build_threads = self.build_threads.clamp(1, 64);
        self.cpu_percent = self.cpu_percent.clamp(1, 100);
        self.dead_percent_max = self.dead_percent_max.clamp(1, 100);
        self.merge_fan_in = self.merge_fan_in.max(2);
        self.segment_rows_max = self.segment_rows_max.clamp(1, crate::ROWS_MAX);
        self.ef = self.ef.clamp(1, crate::RESULTS_MAX);
        self
    }
}
