//! A look at a file's schema before the library reads it: the library recurses once for each level
//! and allocates for as many children as are claimed, so that a few bytes could end the process.
//!
//! Thrift's compact protocol, as far as that takes: `FileMetaData` with its second field, the schema
//! as a list in depth-first order.

/// Nesting of anything that is skipped.
const SKIP_DEPTH_MAX: usize = 32;
const STRUCT: u8 = 12;

/// Whether the schema is there, and a tree of at most `depth_max` levels below its root.
pub fn is_sane(footer: &[u8], depth_max: usize) -> bool {
    schema(&mut Bytes(footer), depth_max).is_some()
}

fn schema(bytes: &mut Bytes<'_>, depth_max: usize) -> Option<()> {
    let mut id = 0;
    loop {
        let kind = bytes.field(&mut id)??;
        if (id, kind) == (2, 9) {
            break;
        }
        bytes.skip(kind, 0)?;
    }
    let (kind, mut left) = bytes.list()?;
    if kind != STRUCT || left == 0 {
        return None;
    }
    // Children that are still to come, by level.
    let mut open: Vec<u64> = Vec::new();
    while left > 0 {
        left -= 1;
        let children = children(bytes)?;
        if let Some(wanted) = open.last_mut() {
            *wanted -= 1;
        }
        if children > left {
            return None;
        }
        if children > 0 {
            open.push(children);
        }
        while open.last() == Some(&0) {
            open.pop();
        }
        if open.len() > depth_max || (open.is_empty() && left > 0) {
            return None;
        }
    }
    open.is_empty().then_some(())
}

/// Reads a `SchemaElement`; how many follow as its children.
fn children(bytes: &mut Bytes<'_>) -> Option<u64> {
    let (mut id, mut children) = (0, 0);
    while let Some(kind) = bytes.field(&mut id)? {
        if (id, kind) == (5, 5) {
            let number = bytes.varint()?;
            // Zigzag: odd ones are negative.
            children = number.is_multiple_of(2).then_some(number / 2)?;
        } else {
            bytes.skip(kind, 0)?;
        }
    }
    Some(children)
}

struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn pass(&mut self, count: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    /// The next field's type, its number in `id`; `Some(None)` at the end of a struct.
    fn field(&mut self, id: &mut u64) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *id = match head >> 4 {
            0 => self.varint()? / 2,
            delta => id.checked_add(u64::from(delta))?,
        };
        Some(Some(head & 0x0f))
    }

    /// Type and number of elements.
    fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let size = match head >> 4 {
            15 => self.varint()?,
            size => u64::from(size),
        };
        Some((head & 0x0f, size))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > SKIP_DEPTH_MAX {
            return None;
        }
        match kind {
            1 | 2 => Some(()),
            3 => self.pass(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.pass(8),
            8 => {
                let length = self.varint()?;
                self.pass(length)
            }
            9 | 10 => {
                let (kind, size) = self.list()?;
                // In a list a boolean takes a byte.
                let kind = if kind <= 2 { 3 } else { kind };
                (0..size).try_for_each(|_| self.skip(kind, depth + 1))
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            // Maps do not occur.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer whose schema has these numbers of children, depth first.
    fn footer(children: &[u32]) -> Vec<u8> {
        // Field 1, i32 1; field 2, a list of structs.
        let mut out = vec![0x15, 2, 0x19, 0xf0 | STRUCT];
        varint(&mut out, children.len() as u64);
        for count in children {
            // Field 4, a name; field 5, children.
            out.extend_from_slice(&[0x48, 1, b'x']);
            if *count > 0 {
                out.push(0x15);
                varint(&mut out, u64::from(*count) * 2);
            }
            out.push(0);
        }
        out.push(0);
        out
    }

    fn varint(out: &mut Vec<u8>, mut number: u64) {
        while number >= 0x80 {
            out.push(0x80 | (number & 0x7f) as u8);
            number >>= 7;
        }
        out.push(number as u8);
    }

    #[test]
    fn only_trees_of_a_sane_depth_pass() {
        let deep = |levels: usize| [vec![1; levels], vec![0]].concat();
        let cases: [(&str, Vec<u32>, bool); 9] = [
            ("two columns", vec![2, 0, 0], true),
            ("a list", vec![2, 0, 1, 1, 0], true),
            ("as deep as allowed", deep(16), true),
            ("deeper", deep(17), false),
            ("very deep", deep(1_000_000), false),
            ("more children than elements", vec![3, 0, 0], false),
            ("absurdly many", vec![i32::MAX as u32, 0], false),
            ("elements of nobody", vec![1, 0, 0], false),
            ("no root", vec![], false),
        ];
        for (name, children, want) in cases {
            assert_eq!(is_sane(&footer(&children), 16), want, "{name}");
        }
        let whole = footer(&[2, 0, 0]);
        // The last byte ends what stands behind the schema.
        for cut in 0..whole.len() - 1 {
            assert!(!is_sane(&whole[..cut], 16), "cut at {cut}");
        }
    }
}
