//! Idle children of shared services that are started before the first client.

use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::puppet::Puppets;
use testkit::{layout, needs_root, test};

#[test]
fn the_first_client_meets_a_warm_child() {
    needs_root("Postfix's directories");
    let mut postfix = Instance::bare();
    let puppets = Puppets::new(&postfix, "warm");
    let service = format!(
        "{} inet n n n - 5 puppet {}",
        postfix.address(),
        puppets.arguments()
    );
    postfix.service(&service);
    let table = format!("[service.\"{}/inet\"]\nmin_idle = 2\n", postfix.address());
    layout::replace(&postfix.configuration().join("master.toml"), &table);
    postfix.start();
    let mut first = puppets.next();
    let _second = puppets.next();
    assert_eq!(postfix.children().len(), 2, "no client has connected");
    let _client = testkit::client::Client::connect(&postfix.address());
    first.take_client();
    until(SOON, "a third child", || postfix.children().len() == 3);
}
