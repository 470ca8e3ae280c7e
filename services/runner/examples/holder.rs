//! Stands in for a holder in the runner's tests: keeps its namespace until it is killed. As a probe it sees nothing wrong.

fn main() {
    if std::env::args().nth(1).as_deref() == Some("probe") {
        return;
    }
    loop {
        std::thread::park();
    }
}
