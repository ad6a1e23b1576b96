//! Geo sets on one shard and on four, in both protocols; replies were taken from redis-server 7.0.15.

use crate::core::Rng;
use crate::testing::{Check, Value, World};

fn sicily() -> Check {
    let mut t = Check::new();
    t.check("GEOADD Sicily 13.361389 38.115556 Palermo 15.087269 37.502669 Catania", "2");
    t
}

#[test]
fn places_are_added() {
    let mut t = sicily();
    t.check("GEOADD Sicily NX CH 13.5 38 Palermo", "0").check("GEOADD Sicily XX 1 1 none", "0");
    t.check("GEOADD Sicily CH 13.361389 38.2 Palermo", "1").check("GEOADD Sicily XX 13.361389 38.115556 Palermo", "0");
    t.check("ZSCORE Sicily Palermo", "\"3479099956230698\"").check("ZSCORE Sicily Catania", "\"3479447370796909\"");
    t.check("GEOADD Sicily 200 10 x", "-ERR invalid longitude,latitude pair 200.000000,10.000000");
    t.check("GEOADD Sicily x 10 x", "-ERR value is not a valid float")
        .check("GEOADD Sicily 1 2 a 3", "-ERR syntax error");
    t.check("GEOADD Sicily NX XX 1 2 a", "-ERR syntax error").check("GEOADD Sicily NX CH XX", "-ERR syntax error");
    t.check("SET s v", "OK");
    t.check("GEOADD s 1 2 a", "-WRONGTYPE Operation against a key holding the wrong kind of value");
}

#[test]
fn members_are_told() {
    let mut t = sicily();
    t.check("GEODIST Sicily Palermo Catania", "\"166274.1516\"")
        .check("GEODIST Sicily Palermo Catania km", "\"166.2742\"");
    t.check("GEODIST Sicily Palermo Catania MI", "\"103.3182\"").check("GEODIST Sicily Palermo none", "nil");
    t.check("GEODIST Sicily Palermo Palermo", "\"0.0000\"").check("GEODIST none a b", "nil");
    t.check("GEODIST Sicily a b c", "-ERR unsupported unit provided. please use M, KM, FT, MI");
    t.check("GEOHASH Sicily Palermo Catania none", r#"["sqc8b49rny0" "sqdtr74hyu0" nil]"#).check("GEOHASH none", "[]");
    t.types(
        "GEOPOS Sicily Palermo none",
        r#"[["13.36138933897018433" "38.11555639549629859"] nil*]"#,
        "[[,13.36138933897018433 ,38.11555639549629859] nil]",
    );
}

#[test]
fn circles_and_boxes_are_searched() {
    let mut t = sicily();
    let both = r#"["Catania" "Palermo"]"#;
    t.check("GEORADIUS Sicily 15 37 200 km ASC", both)
        .check("GEOSEARCH Sicily FROMLONLAT 15 37 BYRADIUS 200 km ASC", both);
    t.check("GEOSEARCH Sicily FROMLONLAT 15 37 BYBOX 400 400 km ASC", both);
    t.check("GEOSEARCH Sicily FROMLONLAT 15 37 BYRADIUS 200 km DESC COUNT 1", r#"["Palermo"]"#);
    t.check("GEORADIUS_RO Sicily 15 37 100 km", r#"["Catania"]"#);
    t.check(
        "GEORADIUSBYMEMBER Sicily Palermo 200 km WITHDIST DESC",
        r#"[["Catania" "166.2742"] ["Palermo" "0.0000"]]"#,
    );
    t.check("GEORADIUSBYMEMBER_RO Sicily Palermo 1 m COUNT 5 ANY", r#"["Palermo"]"#);
    t.check(
        "GEOSEARCH Sicily FROMMEMBER Catania BYRADIUS 1 km WITHHASH WITHCOORD WITHDIST",
        r#"[["Catania" "0.0000" 3479447370796909 ["15.08726745843887329" "37.50266842333162032"]]]"#,
    );
    t.check("GEOSEARCH none FROMMEMBER a BYRADIUS 1 km", "[]").check("GEORADIUSBYMEMBER none a 1 km", "[]");
    t.check("GEOSEARCHSTORE d Sicily FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST", "2").check("ZRANGE d 0 -1", both);
    t.look("ZSCORE d Palermo", |score| assert_eq!(format!("{:.4}", score.text().parse::<f64>().unwrap()), "190.4424"));
    t.check("GEORADIUS Sicily 15 37 100 km STORE d", "1").check("ZSCORE d Catania", "\"3479447370796909\"");
    t.check("GEOSEARCHSTORE d none FROMLONLAT 15 37 BYRADIUS 200 km", "0").check("EXISTS d", "0");
    t.check("GEORADIUSBYMEMBER Sicily Palermo 200 km STOREDIST d", "2").check("ZSCORE d Palermo", "\"0\"");
}

#[test]
fn wrong_searches_are_refused() {
    let mut t = sicily();
    t.check("GEORADIUS Sicily 15 37 200 yd", "-ERR unsupported unit provided. please use M, KM, FT, MI");
    t.check("GEORADIUS Sicily 15 37 -1 km", "-ERR radius cannot be negative");
    t.check("GEORADIUS Sicily 15 37 x km", "-ERR need numeric radius");
    t.check("GEORADIUSBYMEMBER Sicily none 1 km", "-ERR could not decode requested zset member");
    t.check("GEORADIUS_RO Sicily 15 37 200 km STORE d", "-ERR syntax error");
    t.check("GEORADIUS Sicily 15 37 200 km ANY", "-ERR the ANY argument requires COUNT argument");
    t.check("GEORADIUS Sicily 15 37 200 km COUNT 0", "-ERR COUNT must be > 0");
    let store = "-ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options";
    t.check("GEORADIUS Sicily 15 37 200 km STORE d WITHDIST", store);
    let store = "-ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options";
    t.check("GEOSEARCHSTORE d Sicily FROMLONLAT 15 37 BYRADIUS 200 km WITHDIST", store);
    let from = "-ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for geosearch";
    t.check("geosearch Sicily BYRADIUS 200 km ASC WITHDIST", from);
    let by = "-ERR exactly one of BYRADIUS and BYBOX can be specified for geosearch";
    t.check("geosearch Sicily FROMLONLAT 15 37 ASC WITHDIST", by);
    t.check("GEOSEARCH Sicily FROMLONLAT 15 37 FROMMEMBER a BYRADIUS 2 km", "-ERR syntax error");
    t.check("GEOSEARCH Sicily FROMLONLAT 15 37 BYBOX -1 2 km", "-ERR height or width cannot be negative");
    t.check("GEOSEARCH Sicily FROMLONLAT 15 37 BYBOX 1 x km", "-ERR need numeric height");
}

/// Whatever a walk through all members finds inside, a search finds, in both encodings.
#[test]
fn searches_miss_nothing() {
    let mut world = World::new(4);
    let conn = world.connect();
    let mut rng = Rng::new(23);
    let mut names = Vec::new();
    for i in 0..400 {
        let (x, y) = (rng.unit() * 20.0, 30.0 + rng.unit() * 20.0);
        world.run(conn, &format!("GEOADD g {x} {y} m{i}"));
        names.push(format!("m{i}"));
    }
    for round in 0..60 {
        let centre = &names[rng.below(400) as usize];
        let radius = 1.0 + rng.unit() * 400.0;
        let reply = world.run(conn, &format!("GEOSEARCH g FROMMEMBER {centre} BYRADIUS {radius} km"));
        let mut found: Vec<String> = reply.items().iter().map(Value::text).collect();
        found.sort();
        let mut expected: Vec<String> = Vec::new();
        for name in &names {
            let distance: f64 = world.run(conn, &format!("GEODIST g {centre} {name} km")).text().parse().unwrap();
            if distance <= radius {
                expected.push(name.clone());
            }
        }
        expected.sort();
        assert_eq!(found, expected, "round {round}, {radius} km around {centre}");
    }
}

#[test]
fn effects_are_scores() {
    let mut world = World::new(1);
    let conn = world.connect();
    world.log_effects();
    world.run(conn, "GEOADD g NX 13.361389 38.115556 Palermo");
    assert_eq!(world.effects(), ["SELECT 0", "ZADD g NX 3479099956230698 Palermo"]);
}
