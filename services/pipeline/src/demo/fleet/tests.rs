use std::collections::HashSet;

use super::*;

const SCHEMAS: SchemaIds =
    SchemaIds { reading: 1, reading_guid: [7; 16], not_avro: 2, incompatible: 3, unknown: 4_000_000 };
const START_MS: i64 = 1_790_000_000_000;

type Sent = (Vec<u8>, Option<Vec<u8>>, Option<[u8; 16]>, Ticket);

fn sent(seed: u64, count: usize) -> (Vec<Sent>, Fleet) {
    let mut fleet = Fleet::new(FleetOptions { sensors: 200, seed, schemas: SCHEMAS, rollout: Rollout::default() });
    let mut message = Message::default();
    let records = (0..count)
        .map(|index| {
            let ticket = fleet.next(START_MS + index as i64, &mut message);
            let value = message.has_value.then(|| message.value.clone());
            (message.key.clone(), value, message.schema_guid, ticket)
        })
        .collect();
    (records, fleet)
}

#[test]
fn the_same_seed_gives_the_same_records() {
    let (first, first_fleet) = sent(11, 20_000);
    let (second, second_fleet) = sent(11, 20_000);
    assert!(first == second);
    assert_eq!(first_fleet.anomalies(), second_fleet.anomalies());
    let (other, _) = sent(12, 20_000);
    assert!(first != other);
}

#[test]
fn every_kind_of_record_occurs_in_its_share() {
    let (records, fleet) = sent(5, 200_000);
    let count = |wanted: &dyn Fn(Nature) -> bool| records.iter().filter(|record| wanted(record.3.nature)).count();
    let invalid = count(&|nature| matches!(nature, Nature::Flawed(_)));
    let late = count(&|nature| nature == Nature::Late);
    let very_late = count(&|nature| nature == Nature::VeryLate);
    let repeated = count(&|nature| nature == Nature::Repeated);
    assert!((140..260).contains(&repeated), "{repeated}");
    assert!((300..500).contains(&invalid), "{invalid}");
    assert!((850..1_150).contains(&late), "{late}");
    assert!((850..1_150).contains(&very_late), "{very_late}");
    for flaw in Flaw::ALL {
        assert!(count(&|nature| nature == Nature::Flawed(flaw)) > 0, "{flaw:?}");
    }
    assert!(records.iter().filter(|record| record.2 == Some(SCHEMAS.reading_guid)).count() > 200);
    let series: HashSet<u32> = records.iter().map(|record| record.3.series).collect();
    assert_eq!(series.len(), fleet.series());
    assert_eq!(fleet.series_names().len(), fleet.series());
    assert!(!fleet.anomalies().is_empty());
}

#[test]
fn each_flaw_shows_where_it_should() {
    let (records, _) = sent(5, 200_000);
    for (key, value, guid, ticket) in records {
        let Nature::Flawed(flaw) = ticket.nature else {
            let value = value.expect("a valid record has a value");
            assert!(guid.is_some() || value.starts_with(&[0, 0, 0, 0, 1]));
            continue;
        };
        assert!(key.starts_with(b"sensor-"));
        let value = value.as_deref();
        match flaw {
            Flaw::Tombstone => assert_eq!(value, None),
            Flaw::EmptyValue => assert_eq!(value, Some(&[][..])),
            Flaw::TruncatedHeader => assert_eq!(value, Some(&[0, 0, 0][..])),
            Flaw::PlainJson => assert!(value.unwrap().starts_with(b"{")),
            Flaw::UnknownSchemaGuid => assert!(guid.is_some()),
            Flaw::UnknownSchemaId => assert_eq!(value.unwrap()[..5], [0, 0, 0x3D, 0x09, 0]),
            Flaw::SchemaNotAvro => assert_eq!(value.unwrap()[..5], [0, 0, 0, 0, 2]),
            Flaw::IncompatibleSchema => assert_eq!(value.unwrap()[..5], [0, 0, 0, 0, 3]),
            _ => assert!(value.unwrap().starts_with(&[0, 0, 0, 0, 1])),
        }
    }
}

#[test]
fn once_the_schema_has_changed_every_second_sensor_writes_by_it() {
    let rollout = Rollout::default();
    let mut fleet = Fleet::new(FleetOptions { sensors: 50, seed: 3, schemas: SCHEMAS, rollout: rollout.clone() });
    let mut message = Message::default();
    let mut evolved = |fleet: &mut Fleet| {
        let mut sensors = HashSet::new();
        for index in 0..5_000 {
            let ticket = fleet.next(START_MS + index, &mut message);
            if ticket.is_evolved {
                assert_eq!(message.value[..5], [0, 0, 0, 0, 77]);
                assert!(!matches!(ticket.nature, Nature::Flawed(_)));
                sensors.insert(message.key.clone());
            }
        }
        sensors.len()
    };
    assert_eq!(evolved(&mut fleet), 0);
    rollout.begin(77);
    assert_eq!(evolved(&mut fleet), 25);
}

#[test]
fn what_is_sent_a_second_time_is_what_was_sent_just_before() {
    let (records, _) = sent(5, 20_000);
    for pair in records.windows(2) {
        let [(key, value, guid, ticket), (key_again, value_again, guid_again, again)] = pair else { unreachable!() };
        if again.nature == Nature::Repeated {
            assert_eq!((ticket.nature, ticket.series), (Nature::OnTime, again.series));
            assert_eq!((key, value, guid), (key_again, value_again, guid_again));
        }
    }
}
