//! Runs in the virtual machine, and there the tests it is asked for: see `netns_tests::vm`.

fn main() -> std::io::Result<()> {
    netns_tests::vm::serve()
}
