use super::world::*;
use skerry_wire::frame::{Control, FRAME_BYTES_MAX, Line, PROTOCOL, SERVER_NAME};
use std::time::Duration;

/// The packet that carries a code is not repeated for long: where a busy machine drops it, the peer
/// hears a stateless reset (RFC 9000, 10.3) and the case is tried again.
const TRIES: usize = 5;

fn closed_with(error: &quinn::ConnectionError) -> Option<u64> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_without_a_pop_certificate_of_ours_get_nothing() {
    let origin = Running::start().await;
    let addr = origin.handle.quic_addr();
    let others = Certificates::new();
    // A foreign CA's client must trust our server to get as far as being refused.
    let cases = [
        ("no certificate", origin.certificates.client(None)),
        (
            "role origin",
            origin.certificates.client(Some("skerry://local/origin/x")),
        ),
        (
            "no role",
            origin.certificates.client(Some("skerry://local")),
        ),
        ("another CA", others.client(Some("skerry://local/pop/x"))),
    ];
    for (name, config) in cases {
        let endpoint = endpoint();
        let refused = async {
            let connection = match endpoint
                .connect_with(config, addr, SERVER_NAME)
                .unwrap()
                .await
            {
                Ok(connection) => connection,
                Err(_) => return true,
            };
            // With TLS 1.3 the client may believe it is connected until it hears otherwise.
            connection.closed().await;
            true
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(5), refused)
                .await
                .unwrap_or(false),
            "{name}"
        );
    }
    assert!(
        origin
            .pop("p")
            .await
            .ask(&ask(None, 5))
            .await
            .outcome
            .is_ok(),
        "others are served"
    );
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_control_stream_closes_its_connection_with_a_code() {
    let origin = Running::start().await;
    let large = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    let cases: [(&str, Vec<u8>, u64); 5] = [
        (
            "garbage",
            [&8u32.to_le_bytes()[..], b"garbage!"].concat(),
            1,
        ),
        ("an empty frame", vec![0, 0, 0, 0], 1),
        ("a length beyond the limit", large.to_vec(), 2),
        (
            "half a frame, then nothing",
            [&100u32.to_le_bytes()[..], b"half"].concat(),
            3,
        ),
        ("half a length, then nothing", vec![1], 3),
    ];
    let mut breaches = 0;
    for (name, bytes, code) in cases {
        let mut closed = None;
        for _ in 0..TRIES {
            let mut pop = origin.pop("p").await;
            pop.send.write_all(&bytes).await.unwrap();
            let error = tokio::time::timeout(Duration::from_secs(5), pop.connection.closed())
                .await
                .expect(name);
            breaches += 1;
            let lost = matches!(error, quinn::ConnectionError::Reset);
            closed = Some(error);
            if !lost {
                break;
            }
        }
        let closed = closed.unwrap();
        assert_eq!(closed_with(&closed), Some(code), "{name}: {closed}");
    }
    // Nothing at all is fine on a control stream once the greeting is over.
    let pop = origin.pop("quiet").await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(pop.connection.close_reason().is_none());
    // But a connection must greet.
    let endpoint = endpoint();
    let config = origin.certificates.client(Some("skerry://local/pop/mute"));
    let mute = endpoint
        .connect_with(config, origin.handle.quic_addr(), SERVER_NAME)
        .unwrap()
        .await
        .unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), mute.closed())
        .await
        .unwrap();
    assert_eq!(closed_with(&closed), Some(3));
    let (_, _, metrics) = origin.http("GET", "/metrics", b"").await;
    assert!(
        metrics
            .as_str()
            .unwrap()
            .contains(&format!("skerry_origin_breaches_total {}", breaches + 1)),
        "{metrics}"
    );
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_question_closes_only_its_stream() {
    let origin = Running::start().await;
    let pop = origin.pop("p").await;
    let cases: [(&str, Vec<u8>, u64); 3] = [
        (
            "garbage",
            [&8u32.to_le_bytes()[..], b"garbage!"].concat(),
            1,
        ),
        ("too large", u32::MAX.to_le_bytes().to_vec(), 2),
        ("stalled", vec![200, 0, 0, 0, 1, 2, 3], 3),
    ];
    for (name, bytes, code) in cases {
        let (mut send, mut recv) = pop.connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(5), recv.read_to_end(1 << 20))
            .await
            .expect(name);
        match read {
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(reset))) => {
                assert_eq!(reset.into_inner(), code, "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // Streams that are opened, cancelled or left alone take nothing with them.
    for _ in 0..200 {
        let (mut send, mut recv) = pop.connection.open_bi().await.unwrap();
        send.reset(0u32.into()).unwrap();
        recv.stop(0u32.into()).unwrap();
    }
    assert!(pop.ask(&ask(Some("1"), 10)).await.outcome.is_ok());
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_carries_questions_and_nothing_else() {
    let origin = Running::start().await;
    let greeting = |protocol, pop: &str| {
        let pop = pop.into();
        Control::Line(Line { protocol, pop })
    };
    let line = origin.begin(&greeting(PROTOCOL, "p")).await;
    for user in ["1", "2"] {
        let answer = line.ask(&ask(Some(user), 5)).await;
        assert!(answer.outcome.is_ok(), "{user}");
    }
    let pushed = tokio::time::timeout(Duration::from_millis(300), line.connection.accept_uni());
    assert!(pushed.await.is_err(), "nothing is pushed on a line");
    let newer = (PROTOCOL.1 + 1, PROTOCOL.1 + 1);
    let cases = [
        ("no name", greeting(PROTOCOL, ""), 1),
        ("a long name", greeting(PROTOCOL, &"p".repeat(65)), 1),
        ("a control character", greeting(PROTOCOL, "p\n"), 1),
        ("no greeting", Control::Ping { nonce: 1 }, 1),
        ("a version of the future", greeting(newer, "p"), 5),
    ];
    for (name, first, code) in cases {
        let mut closed = None;
        for _ in 0..TRIES {
            let broken = origin.begin(&first).await;
            let error = tokio::time::timeout(Duration::from_secs(5), broken.connection.closed())
                .await
                .expect(name);
            let lost = matches!(error, quinn::ConnectionError::Reset);
            closed = closed_with(&error);
            if !lost {
                break;
            }
        }
        assert_eq!(closed, Some(code), "{name}");
    }
    assert!(line.ask(&ask(Some("1"), 5)).await.outcome.is_ok());
    origin.stop().await;
}
