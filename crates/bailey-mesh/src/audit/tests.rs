use std::sync::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What `work` logs.
fn heard(work: impl FnOnce()) -> String {
    let ear = Ear::default();
    let mouth = ear.clone();
    let log = tracing_subscriber::fmt()
        .with_writer(move || mouth.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(log, work);
    let heard = ear.0.lock().unwrap();
    String::from_utf8(heard.clone()).unwrap()
}

#[test]
fn what_was_not_delivered_is_said_with_its_kinds_however_the_service_ends() {
    let (auditor, mut queue) = Auditor::new();
    for kind in ["job.ended", "ticket.made", "job.ended"] {
        auditor.append(kind, &json!({ "name": "a-name" }));
    }
    // One was taken out already, and its call did not end.
    queue.pending.push(queue.entries.try_recv().unwrap());
    let said = heard(|| drop(queue));
    assert!(
        said.contains("3 audit entries were lost in the stop: job.ended (2), ticket.made (1)"),
        "{said}"
    );
    assert!(!said.contains("a-name"), "{said}");
    // Later ones, too.
    let said = heard(|| auditor.append("lock.signed", &json!({})));
    assert!(
        said.contains("an audit entry (lock.signed) was lost: the service has stopped"),
        "{said}"
    );
}

#[test]
fn nothing_is_said_where_nothing_is_lost() {
    let (_auditor, queue) = Auditor::new();
    assert_eq!(heard(|| drop(queue)), "");
}
