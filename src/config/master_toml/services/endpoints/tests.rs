use super::*;
use crate::config::testing::{FakeSystem, errors, sources};
use crate::config::{Config, SocketRights, Source};

const MASTER_CF: &str = "\
127.0.0.1:783 inet n - n - 5 spamd
local unix - n n - 2 local
qmgr fifo n - n - 1 qmgr
";

fn parse_on(system: &FakeSystem, settings: &str) -> Result<Config, Diagnostics> {
    let mut sources = sources("", MASTER_CF);
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: settings.into(),
    });
    Config::parse(&sources, system)
}

/// The addresses of `spamd` with these settings.
fn addresses(settings: &str) -> Vec<String> {
    let text = format!("[service.\"127.0.0.1:783/inet\"]\n{settings}");
    let config = parse_on(&FakeSystem::default(), &text).expect("good settings");
    let all = config.services[0].listen_addresses();
    all.map(|address| address.to_string()).collect()
}

/// The only error of `spamd` with these settings.
fn error(settings: &str) -> String {
    let text = format!("[service.\"127.0.0.1:783/inet\"]\n{settings}");
    error_of(&FakeSystem::default(), &text)
}

fn error_of(system: &FakeSystem, text: &str) -> String {
    let errors = errors(parse_on(system, text));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

#[test]
fn a_service_listens_at_its_own_endpoint_first_and_then_in_the_order_of_the_list() {
    let list = "also_listen = [\"[::1]:783\", \"unix:/run/spamd.sock\", \"unix:public/spamd\"]\n";
    let expected = [
        "127.0.0.1:783",
        "[::1]:783",
        "/run/spamd.sock",
        "public/spamd",
    ];
    assert_eq!(addresses(list), expected);
    assert_eq!(addresses("also_listen = []\n"), ["127.0.0.1:783"]);
}

#[test]
fn a_host_has_all_of_its_addresses() {
    let list = "also_listen = [\"localhost:25\"]\n";
    assert_eq!(
        addresses(list),
        ["127.0.0.1:783", "127.0.0.1:25", "[::1]:25"]
    );
}

#[test]
fn a_bad_endpoint_is_told_with_its_place_and_what_was_expected() {
    for (item, problem) in [
        ("\"unix:run/spamd.sock\"", "a path has no empty parts"),
        ("\"unix:/run/../spamd.sock\"", "a path has no empty parts"),
        ("\"unix:/run//spamd.sock\"", "a path has no empty parts"),
        ("\"unix:private/\"", "a path has no empty parts"),
        ("\"unix:/\"", "a path has no empty parts"),
        ("\"127.0.0.1:nothing\"", "nothing"),
        ("\"unknown.example.com:25\"", "unknown.example.com"),
        ("7", EXPECTED),
        ("[]", EXPECTED),
    ] {
        let said = error(&format!("also_listen = [\"[::1]:783\", {item}]\n"));
        assert!(
            said.starts_with("master.toml: line 2: column 29: "),
            "{said}"
        );
        assert!(said.contains(problem), "{item}: {said}");
    }
    let long = format!(
        "also_listen = [\"unix:/{}\"]\n",
        "x".repeat(SOCKET_PATH_MAX)
    );
    assert!(error(&long).contains("a path of at most 107 bytes, and this has 108"));
    assert!(error("also_listen = \"[::1]:783\"\n").contains("a list, as in"));
}

#[test]
fn endpoints_are_few() {
    let list = |count| {
        let all: Vec<_> = (1..=count)
            .map(|port| format!("\"127.0.0.1:{port}\""))
            .collect();
        format!("also_listen = [{}]\n", all.join(", "))
    };
    assert_eq!(addresses(&list(ENDPOINTS_MAX)).len(), 1 + ENDPOINTS_MAX);
    assert!(error(&list(ENDPOINTS_MAX + 1)).contains("at most 64 endpoints"));
}

#[test]
fn an_address_or_path_of_another_service_is_refused() {
    for (item, owner) in [
        ("127.0.0.1:783", "127.0.0.1:783"),
        ("unix:private/local", "local"),
        ("unix:/var/spool/postfix/private/local", "local"),
    ] {
        let said = error(&format!("also_listen = [\"{item}\"]\n"));
        assert!(
            said.contains("expected each address and path once"),
            "{item}: {said}"
        );
        assert!(said.contains(owner), "{item}: {said}");
    }
    let twice = error("also_listen = [\"[::1]:783\", \"[::1]:783\"]\n");
    assert!(
        twice.starts_with("master.toml: line 2: column 29: "),
        "{twice}"
    );
}

#[test]
fn only_services_with_stream_connections_have_several_endpoints() {
    let text = "[service.\"qmgr/fifo\"]\nalso_listen = [\"[::1]:783\"]\n";
    let said = error_of(&FakeSystem::default(), text);
    assert!(
        said.contains("for services of type inet and unix, and this is fifo"),
        "{said}"
    );
}

#[test]
fn root_makes_no_socket_where_another_user_can_put_something_in_its_way() {
    let system = FakeSystem {
        shared: vec!["/tmp"],
        ..FakeSystem::default()
    };
    let text = "[service.\"127.0.0.1:783/inet\"]\nalso_listen = [\"unix:/tmp/spamd.sock\"]\n";
    let said = error_of(&system, text);
    assert!(said.contains("a path that only root can change"), "{said}");
}

#[test]
fn the_rights_of_sockets_are_read() {
    let list = "also_listen = [\"unix:/run/spamd.sock\"]\n";
    let text = format!(
        "[service.\"127.0.0.1:783/inet\"]\n{list}socket_mode = \"0660\"\nsocket_user = \"postfix\"\n\
         socket_group = \"mail\"\n"
    );
    let config = parse_on(&FakeSystem::default(), &text).expect("good settings");
    let SocketRights { mode, uid, gid } = config.services[0].also_listen().rights;
    assert_eq!((mode, uid, gid), (0o660, Some(105), Some(8)));
    for (setting, expected) in [
        ("socket_mode = 660", "an octal number"),
        ("socket_mode = \"0888\"", "an octal number"),
        ("socket_mode = \"1777\"", "an octal number"),
        ("socket_mode = \"\"", "an octal number"),
        ("socket_user = \"nobody2\"", "a user of this system"),
        ("socket_user = -1", "a user of this system"),
        ("socket_group = \"nogroup2\"", "a group of this system"),
    ] {
        let said = error(&format!("{list}{setting}\n"));
        assert!(said.starts_with("master.toml: line 3: column "), "{said}");
        assert!(said.contains(expected), "{setting}: {said}");
    }
}

#[test]
fn rights_need_a_path() {
    let said = error("also_listen = [\"[::1]:783\"]\nsocket_mode = \"0660\"\n");
    assert!(
        said.contains("\"socket_mode\" needs a \"unix:\" path"),
        "{said}"
    );
}
