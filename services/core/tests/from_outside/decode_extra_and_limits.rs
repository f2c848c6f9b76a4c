//! What the reader doesn't know is kept; what is too large, too deep or broken is refused.

use arrow_array::cast::AsArray;
use kappa_core::reject::{Reason, Reject};

use crate::support::read::{compiled, read, read_x, record_of};

/// The one-field writer type and body, and the `_extra` of a reader without fields.
fn extra_of(of: &str, body: &[u8]) -> Result<String, Reject> {
    let (decoder, mut columns, _) = compiled(&record_of(of), r#"{"type":"record","name":"R","fields":[]}"#).unwrap();
    decoder.decode(body, &mut columns)?;
    Ok(columns.take().1.as_string::<i32>().value(0).to_owned())
}

#[test]
fn unknown_fields_are_kept_as_json() {
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (r#""null""#, vec![], "null"),
        (r#""boolean""#, vec![1], "true"),
        (r#""long""#, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "-9223372036854775808"),
        (r#""float""#, 0.1_f32.to_le_bytes().to_vec(), "0.1"),
        (r#""double""#, 1e300_f64.to_le_bytes().to_vec(), "1e300"),
        (r#""double""#, (-0.0_f64).to_le_bytes().to_vec(), "-0.0"),
        (r#""double""#, f64::NAN.to_le_bytes().to_vec(), r#""NaN""#),
        (r#""float""#, f32::NEG_INFINITY.to_le_bytes().to_vec(), r#""-Infinity""#),
        (r#""string""#, b"\x08\"\\\n\x01".to_vec(), r#""\"\\\n\u0001""#),
        (r#""bytes""#, vec![4, 0, 255], r#""AP8=""#),
        (r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, vec![2], r#""B""#),
        (r#"{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}"#, vec![4, 0xfb, 0x2e], r#""-12.34""#),
        (
            r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#,
            (0..16).collect(),
            r#""00010203-0405-0607-0809-0a0b0c0d0e0f""#,
        ),
        (r#"["null","int"]"#, vec![2, 2], "1"),
        (r#"{"type":"array","items":"int"}"#, vec![4, 2, 4, 2, 6, 0], "[1,2,3]"),
        (r#"{"type":"map","values":"int"}"#, vec![4, 2, b'k', 2, 2, b'k', 4, 0], r#"{"k":1,"k":2}"#),
        (
            r#"{"type":"record","name":"P","fields":[{"name":"a","type":"int"},{"name":"b","type":["null","P"]}]}"#,
            vec![2, 2, 4, 0],
            r#"{"a":1,"b":{"a":2,"b":null}}"#,
        ),
    ];
    for (of, body, expected) in cases {
        assert_eq!(extra_of(of, &body), Ok(format!(r#"{{"x":{expected}}}"#)), "{of}");
    }
    assert_eq!(extra_of(r#""string""#, &[2, 0xff]).unwrap_err().reason, Reason::InvalidUtf8);
    assert_eq!(extra_of(r#""boolean""#, &[2]).unwrap_err().reason, Reason::InvalidEnum);
}

#[test]
fn unknown_parts_stand_under_the_path_of_what_is_known() {
    let point =
        |more: &str| format!(r#"{{"type":"record","name":"P","fields":[{{"name":"lat","type":"int"}}{more}]}}"#);
    let altitude = r#",{"name":"alt","type":"int"}"#;
    let (decoder, mut columns, _) = compiled(
        &record_of(&format!(r#"["null",{}]"#, point(altitude))),
        &record_of(&format!(r#"["null",{}]"#, point(""))),
    )
    .unwrap();
    for body in [&[0][..], &[2, 2, 4], &[0]] {
        decoder.decode(body, &mut columns).unwrap();
    }
    let extra = columns.take().1;
    assert_eq!(extra.as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some(r#"{"x":{"alt":2}}"#), None]);
    let array = |point: String| record_of(&format!(r#"{{"type":"array","items":["null",{point}]}}"#));
    let (decoder, mut columns, _) = compiled(&array(point(altitude)), &array(point(""))).unwrap();
    for body in [&[4, 0, 2, 2, 4, 0][..], &[0], &[2, 0, 0]] {
        decoder.decode(body, &mut columns).unwrap();
    }
    let extra = columns.take().1;
    assert_eq!(extra.as_string::<i32>().iter().collect::<Vec<_>>(), [Some(r#"{"x":[null,{"alt":2}]}"#), None, None]);
}

#[test]
fn lengths_depth_and_expansion_are_bounded() {
    let count = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let reason = |of: &str, body: &[u8]| read_x(of, of, body).unwrap_err();
    let reject = reason(r#"{"type":"map","values":"string"}"#, &[&count[..], &[2, b'k']].concat());
    assert_eq!(reject.reason, Reason::InvalidLength);
    let expected = "field `x`: map count 9223372036854775807 at byte 0 is more than the 2 bytes left can hold";
    assert_eq!(reject.detail, expected);
    assert_eq!(reason(r#"{"type":"array","items":"null"}"#, &count).reason, Reason::TooLarge);
    assert_eq!(reason(r#"{"type":"array","items":"int"}"#, &[200, 1, 2]).reason, Reason::InvalidLength);
    // The size of a block is negative, too large, or wrong.
    for body in [&[1, 1, 2, 0][..], &[1, 200, 1, 0], &[1, 4, 2, 0]] {
        assert_eq!(reason(r#"{"type":"array","items":"int"}"#, body).reason, Reason::InvalidLength, "{body:?}");
    }
    assert_eq!(reason(r#""int""#, &[0x80, 0x80, 0x80, 0x80, 0x10]).reason, Reason::InvalidLength);
    assert_eq!(reason(r#""string""#, &[4, b'x']).reason, Reason::TruncatedBody);
    assert_eq!(reason(r#""double""#, &[0; 7]).reason, Reason::TruncatedBody);
    assert_eq!(reason(r#""double""#, &[0; 9]).reason, Reason::TrailingBytes);
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":2}"#;
    assert_eq!(reason(decimal, &[2, 100]).reason, Reason::InvalidLength);
    assert_eq!(reason(decimal, &[0]).reason, Reason::InvalidLength);
    // A million records of nothing but defaults.
    let empty = r#"{"type":"array","items":{"type":"record","name":"P","fields":[]}}"#;
    let full = r#"{"type":"array","items":{"type":"record","name":"P","fields":[{"name":"s","type":"string","default":"0123456789"}]}}"#;
    let rows = read(&record_of(empty), &record_of(full), &[&[0x80, 0x89, 0x7a, 0]]);
    assert_eq!(rows[0].clone().unwrap_err().reason, Reason::TooLarge);
    // Into `_extra`: endless nulls, and endless depth.
    let endless = extra_of(r#"{"type":"array","items":"null"}"#, &count).unwrap_err();
    assert_eq!(endless.reason, Reason::TooLarge);
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    assert_eq!(extra_of(list, &[2, 2, 0]), Ok(r#"{"x":{"next":{"next":{"next":null}}}}"#.to_owned()));
    assert_eq!(extra_of(list, &[2; 1000]).unwrap_err().reason, Reason::TooDeep);
    let itself = r#"{"type":"record","name":"L","fields":[{"name":"me","type":"L"}]}"#;
    assert_eq!(extra_of(itself, &[]).unwrap_err().reason, Reason::TooDeep);
    let large = vec![0; (1 << 20) + 1];
    assert_eq!(reason(r#""string""#, &large).reason, Reason::TooLarge);
}
