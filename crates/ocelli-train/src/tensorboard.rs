//! TensorBoard event files, written whole from the records of a run.
//!
//! ```text
//! file    = records of  u64 length | u32 masked crc32c(length) | bytes | u32 masked crc32c(bytes), little-endian
//! record  = Event { 1: double wall_time, 2: int64 step, 3: string file_version | 5: Summary { 1: Value* } }
//! Value   = { 1: string tag, 2: float simple_value }
//! ```
//!
//! Source: TensorFlow's `event.proto`, `summary.proto` and `record_writer.cc`. Deviation: the wall time of an event is its
//! step in seconds, so that the same run gives the same file; TensorBoard's step axis is unaffected.

use ocelli_data::record::Record;

/// CRC-32C (Castagnoli), bit by bit: event files are small.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn event(step: u64, payload: (u8, &[u8])) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend((step as f64).to_le_bytes());
    event.push(2 << 3);
    varint(&mut event, step);
    bytes_field(&mut event, payload.0, payload.1);
    event
}

fn push(out: &mut Vec<u8>, event: &[u8]) {
    let length = (event.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(event);
    out.extend(masked(event).to_le_bytes());
}

/// The event file of all metrics; alarms are left out.
pub fn event_file(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    push(&mut out, &event(0, (3, b"brain.Event:2")));
    for record in records {
        if let Record::Metric { stage, step, name, value } = record {
            let mut number = Vec::new();
            bytes_field(&mut number, 1, format!("{stage}/{name}").as_bytes());
            number.push(2 << 3 | 5);
            number.extend((*value as f32).to_le_bytes());
            let mut summary = Vec::new();
            bytes_field(&mut summary, 1, &number);
            push(&mut out, &event(*step, (5, &summary)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4: 32 bytes of zeros, and 0..32.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
    }

    #[test]
    fn one_metric_by_hand() {
        let record = Record::Metric { stage: "s".into(), step: 300, name: "n".into(), value: 1.0 };
        let file = event_file(&[record]);
        let first = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let second = &file[first + 16..];
        // step 300 = AC 02; tag "s/n"; 1.0f = 00 00 80 3F; the event's length is the sum of its parts.
        let mut expected = vec![0x09];
        expected.extend(300f64.to_le_bytes());
        expected.extend([
            0x10, 0xAC, 0x02, 0x2A, 12, 0x0A, 10, 0x0A, 3, b's', b'/', b'n', 0x15, 0, 0, 0x80, 0x3F,
        ]);
        assert_eq!(u64::from_le_bytes(second[..8].try_into().unwrap()) as usize, expected.len());
        assert_eq!(&second[12..12 + expected.len()], expected);
        assert_eq!(second.len(), 16 + expected.len());
    }
}
