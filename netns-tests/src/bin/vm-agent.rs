//! The agent in the virtual machine, which runs the requested program: see `netns_tests::vm`.

fn main() -> std::io::Result<()> {
    netns_tests::vm::serve()
}
