//! (D) The ledger of redrives: no dead letter was sent again twice. The records that were sent are new ones in the log,
//! and are verified like all others.

use super::Shared;
use super::report::Check;
use crate::dlq::ledger::Ledger;

pub(super) async fn check(shared: &Shared) -> anyhow::Result<()> {
    let report = &shared.report;
    let ledger = Ledger::read_at(&shared.stores.dead_letters, &shared.topic).await?;
    if ledger.0.is_empty() {
        return Ok(());
    }
    report.examined(Check::DeadLetters, "redrive batches", ledger.0.len() as u64);
    for record in ledger.sent().twice().filter(|record| shared.selects(record.partition)) {
        let sentence = format!("partition {}: the dead letter {record} was sent again twice", record.partition);
        report.differs(Check::DeadLetters, Some(record.partition), record.offset, sentence);
    }
    for batch in ledger.unsettled() {
        let note = format!(
            "batch {} of a redrive, begun at {}, is under way or was interrupted; the next `kappa dlq redrive` settles it",
            batch.intent.sequence, batch.intent.at
        );
        report.note(Check::DeadLetters, note);
    }
    Ok(())
}
