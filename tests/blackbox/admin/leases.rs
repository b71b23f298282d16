//! Leases listed, pinned and released.

use crate::support::node::Visited;
use crate::support::node::plan::Plan;
use crate::support::until;

#[test]
fn leases_are_listed_in_the_order_of_their_ports() {
    let plan = Plan::new(4).flag("--admin=127.0.0.1:0");
    let proxy = plan.start();
    let admin = proxy.server.admin();
    let first = Visited::new(&proxy, 1);
    let second = Visited::new(&proxy, 2);
    let page = admin.get("/leases?pool=node/tcp");
    let rows = page["leases"].as_array().unwrap();
    let ports: Vec<_> = rows
        .iter()
        .map(|row| row["port"].as_u64().unwrap())
        .collect();
    let mut wanted = [&first, &second].map(|one| u64::from(one.public.port()));
    wanted.sort_unstable();
    assert_eq!(ports, wanted);
    for row in rows {
        assert_eq!(
            (&row["pool"], &row["pinned"]),
            (&"node/tcp".into(), &false.into())
        );
        let session = row["session"].as_str().unwrap();
        assert!(session.starts_with('w'), "{row}");
        let owner = row["owner"].as_str().unwrap();
        assert!(owner.bytes().all(|byte| byte.is_ascii_graphic()), "{row}");
    }
    // In pages of one.
    let page = admin.get("/leases?limit=1");
    let next = page["next"].as_str().unwrap();
    let page = admin.get(&format!("/leases?limit=1&after={next}"));
    assert_eq!(page["leases"][0]["port"], wanted[1]);
}

#[test]
fn a_lease_is_pinned_and_released() {
    let proxy = Plan::new(4).flag("--admin=127.0.0.1:0").start();
    let admin = proxy.server.admin();
    let _first = Visited::new(&proxy, 1);
    let mut second = Visited::new(&proxy, 2);
    let port = second.public.port();
    let path = format!("/leases/node/tcp/{port}");
    admin
        .call("PUT", &path, "", "{\"pinned\": true}")
        .expect(200);
    admin
        .call(
            "PUT",
            &path.replace("node/tcp", "node%2Ftcp"),
            "",
            "{\"pinned\": true}",
        )
        .expect(200);
    admin.call("PUT", &path, "", "{}").expect(400);
    admin.call("PUT", &path, "", "pinned").expect(400);
    admin
        .call("PUT", "/leases/nobody/1", "", "{\"pinned\": true}")
        .expect(404);
    let pinned = |admin: &crate::support::admin::Admin| {
        let page = admin.get("/leases");
        let rows = page["leases"].as_array().unwrap().clone();
        rows.into_iter().filter(|row| row["pinned"] == true).count()
    };
    assert_eq!(pinned(&admin), 1);
    second.expect_passing(b"pinned and served");
    admin
        .call("PUT", &path, "", "{\"pinned\": false}")
        .expect(200);
    assert_eq!(pinned(&admin), 0);

    // Released, it is nobody's, and who held it is told.
    let answer = admin.call("DELETE", &path, "", "").expect(200).json();
    assert_eq!(
        (&answer["released"], &answer["was_held"]),
        (&true.into(), &true.into())
    );
    admin.call("DELETE", &path, "", "").expect(404);
    until("its port is closed", || {
        std::net::TcpStream::connect(second.public).is_err()
    });
    // The node comes back only when its connection ends, and then learns its new address.
    second.node.skip_to_end();
    until("the session has ended", || {
        let labels = "role=\"node\",reason=\"kicked\"";
        admin.metric("towpath_sessions_ended_total", labels) == 1.0
    });
    let status = admin.get("/status");
    let pools = status["leases"].as_array().unwrap();
    let tcp = pools
        .iter()
        .find(|pool| pool["pool"] == "node/tcp")
        .unwrap();
    assert_eq!((&tcp["leased"], &tcp["free"]), (&1.into(), &3.into()));
    assert_eq!(admin.metric("towpath_leases", "node/tcp"), 1.0);
}
