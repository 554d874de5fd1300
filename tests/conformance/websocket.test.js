// SPDX-License-Identifier: Apache-2.0
//
// The package ws against our WebSockets, as client and as server.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { connect as connectTcp } from "node:net";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { require, startServer } from "./support.js";

const WebSocket = require("ws");
const run = promisify(execFile);
const sizes = [0, 1, 125, 126, 65535, 65536, 500000];

let server;
before(async () => (server = await startServer()));
after(() => server.stop());

const pattern = (n) => Buffer.from(Uint8Array.from({ length: n }, (_, i) => i % 256));
const letters = (n) => Buffer.from(Uint8Array.from({ length: n }, (_, i) => 97 + (i % 26)));

// An open WebSocket of ours, closed when `use` is done with it.
async function withSocket(use, { path = "/ws", protocols = [], options = {} } = {}) {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}${path}`, protocols, options);
  try {
    await once(socket, "open");
    await use(socket);
  } finally {
    socket.terminate();
  }
}

// The next message: { data, isBinary }.
async function next(socket) {
  const [data, isBinary] = await once(socket, "message");
  return { data, isBinary };
}

async function closed(socket) {
  const [code, reason] = await once(socket, "close");
  return { code, reason: reason.toString() };
}

// The status of a handshake that is refused.
async function refusal(path, protocols, options) {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}${path}`, protocols, options);
  socket.on("error", () => {});
  const [, response] = await once(socket, "unexpected-response");
  socket.terminate();
  return response;
}

for (const binary of [false, true]) {
  const type = binary ? "binary" : "text";

  test(`messages of every size come back (${type})`, () => withSocket(async (socket) => {
    for (const n of sizes) {
      const data = binary ? pattern(n) : letters(n);
      socket.send(data, { binary });
      const got = await next(socket);
      assert.equal(got.isBinary, binary);
      assert.ok(got.data.equals(data), `${n} bytes`);
    }
  }));

  test(`messages of every size come back, sent in one go (${type})`, () => withSocket(async (socket) => {
    const got = [];
    const all = new Promise((resolve) => socket.on("message", (data) => {
      got.push(data.length);
      if (got.length === sizes.length) resolve();
    }));
    for (const n of sizes) socket.send(letters(n), { binary });
    await all;
    assert.deepEqual(got, sizes);
  }));

  test(`fragments become one message (${type})`, () => withSocket(async (socket) => {
    for (const parts of [[1, 1], [0, 5, 0], [125, 126, 65536], [1000, 0, 0, 1]]) {
      const data = letters(parts.reduce((a, b) => a + b));
      let at = 0;
      parts.forEach((n, i) => {
        socket.send(data.subarray(at, at + n), { binary, fin: i === parts.length - 1 });
        // Control frames may stand between fragments.
        socket.ping("between");
        at += n;
      });
      const got = await next(socket);
      assert.equal(got.isBinary, binary);
      assert.ok(got.data.equals(data), String(parts));
    }
  }));
}

test("text of every width comes back", () => withSocket(async (socket) => {
  const text = "aé€\u{1F600}\u0000 end";
  socket.send(text);
  assert.equal((await next(socket)).data.toString(), text);
}));

test("text that is cut inside a character, between fragments, comes back", () => withSocket(async (socket) => {
  const text = Buffer.from("\u{1F600}€");
  for (let i = 0; i < text.length; i++)
    socket.send(text.subarray(i, i + 1), { binary: false, fin: i === text.length - 1 });
  assert.ok((await next(socket)).data.equals(text));
}));

test("a ping is answered with its payload", () => withSocket(async (socket) => {
  for (const payload of ["", "x", "y".repeat(125)]) {
    socket.ping(payload);
    const [got] = await once(socket, "pong");
    assert.equal(got.toString(), payload);
  }
}));

test("the server pings and counts the pongs", () => withSocket(async (socket) => {
  socket.send("!ping");
  const [payload] = await once(socket, "ping");
  assert.equal(payload.toString(), "are you there");
  socket.send("!pongs");
  assert.equal((await next(socket)).data.toString(), "1");
}));

test("close codes of the client come back", async () => {
  for (const code of [1000, 1001, 1011, 3000, 4001, 4999]) {
    await withSocket(async (socket) => {
      socket.close(code, "enough");
      assert.equal((await closed(socket)).code, code);
    });
  }
});

test("a close without a code is answered without one", () => withSocket(async (socket) => {
  socket.close();
  assert.equal((await closed(socket)).code, 1005);
}));

test("close codes of the server arrive, with their reason", async () => {
  for (const code of [1000, 1001, 1011, 1013, 4001]) {
    await withSocket(async (socket) => {
      socket.send(`!close ${code}`);
      assert.deepEqual(await closed(socket), { code, reason: "as asked" });
    });
  }
});

// Sends what no client should, and expects the server's close code.
function refused(name, code, send) {
  test(`${name}: closed with ${code}`, () => withSocket(async (socket) => {
    socket.on("error", () => {});
    send(socket);
    assert.equal((await closed(socket)).code, code);
  }));
}

// A masked frame as bytes; the mask is zero.
const frame = (first, payload = Buffer.alloc(0)) =>
  Buffer.concat([Buffer.from([first, 0x80 | payload.length, 0, 0, 0, 0]), payload]);
const raw = (...frames) => (socket) => socket._socket.write(Buffer.concat(frames));

refused("text that is not UTF-8", 1007, (socket) => socket.send(Buffer.from([0x61, 0xff]), { binary: false }));
refused("an overlong character", 1007, (socket) => socket.send(Buffer.from([0xc0, 0x80]), { binary: false }));
refused("text that ends inside a character", 1007, (socket) =>
  socket.send(Buffer.from([0xe2, 0x82]), { binary: false }));
refused("a fragment that is not UTF-8", 1007, (socket) =>
  socket.send(Buffer.from([0xff]), { binary: false, fin: false }));
refused("a frame without a mask", 1002, (socket) => socket.send("hello", { mask: false }));
refused("a reserved bit", 1002, raw(frame(0xc1)));
refused("an unknown opcode", 1002, raw(frame(0x83)));
refused("a fragmented ping", 1002, raw(frame(0x09)));
refused("a continuation of nothing", 1002, raw(frame(0x80)));
refused("a message inside another", 1002, raw(frame(0x01), frame(0x81)));
refused("a close code that must not be sent", 1002, raw(frame(0x88, Buffer.from([0x03, 0xed]))));
refused("a close frame of one byte", 1002, raw(frame(0x88, Buffer.from([0x03]))));
refused("a close reason that is not UTF-8", 1007, raw(frame(0x88, Buffer.from([0x03, 0xe8, 0xff]))));
refused("a message that is too large", 1009, (socket) => socket.send(pattern((1 << 20) + 1)));
refused("fragments that are too large together", 1009, (socket) => {
  for (let i = 0; i < 3; i++) socket.send(pattern(500000), { fin: false });
});

test("the subprotocol that both speak is chosen", async () => {
  await withSocket(async (socket) => assert.equal(socket.protocol, "echo.v1"),
    { protocols: ["other", "echo.v1"] });
  await withSocket(async (socket) => assert.equal(socket.protocol, ""));
});

test("compression is declined", () =>
  withSocket(async (socket) => {
    assert.equal(socket.extensions, "");
    socket.send(letters(5000));
    assert.ok((await next(socket)).data.equals(letters(5000)));
  }, { options: { perMessageDeflate: true } }));

test("a foreign origin is refused, our own and none are not", async () => {
  const path = "/ws-same-origin";
  assert.equal((await refusal(path, [], { origin: "http://elsewhere.test" })).statusCode, 403);
  for (const options of [{ origin: server.url }, {}]) {
    await withSocket(async (socket) => {
      socket.send("hello");
      assert.equal((await next(socket)).data.toString(), "hello");
    }, { path, options });
  }
});

test("another version is refused with the one that is spoken", async () => {
  const response = await refusal("/ws", [], { protocolVersion: 8 });
  assert.equal(response.statusCode, 426);
  assert.equal(response.headers["sec-websocket-version"], "13");
});

test("a plain GET is no WebSocket", async () => {
  const response = await fetch(`${server.url}/ws`);
  assert.equal(response.status, 400);
});

// A client may send frames before it has seen the 101.
test("a frame in the handshake's packet is not lost", async () => {
  const socket = connectTcp(server.port, "127.0.0.1");
  socket.write(Buffer.concat([
    Buffer.from("GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"),
    frame(0x81, Buffer.from("early")),
  ]));
  let got = Buffer.alloc(0);
  for await (const data of socket) {
    got = Buffer.concat([got, data]);
    if (got.includes("early")) break;
  }
  assert.match(got.toString("latin1"), /^HTTP\/1\.1 101 /);
  assert.ok(got.subarray(-7).equals(Buffer.from("\x81\x05early", "latin1")));
});

test("a client that vanishes does no harm", async () => {
  await withSocket(async (socket) => socket._socket.destroy());
  await withSocket(async (socket) => {
    socket.send("still here");
    assert.equal((await next(socket)).data.toString(), "still here");
  });
});

test("our client against a server of ws", async () => {
  const peer = new WebSocket.WebSocketServer({
    port: 0,
    host: "127.0.0.1",
    handleProtocols: (offered) => (offered.has("echo.v1") ? "echo.v1" : false),
  });
  await once(peer, "listening");
  peer.on("connection", (socket) => socket.on("message", (data, isBinary) => {
    if (!isBinary && data.toString() === "bye") socket.close(4001, "paused");
    else socket.send(data, { binary: isBinary });
  }));
  const { stdout } = await run(process.env.TORPOR_TEST_WS_CLIENT, [String(peer.address().port), "/any"]);
  peer.close();
  const echoed = sizes.flatMap((n) => [`echoed ${n}`, `echoed ${n}`]);
  assert.deepEqual(stdout.trimEnd().split("\n"), [...echoed, "closed 4001 paused"]);
});

test("our client against a server that has no WebSockets", async () => {
  const { stdout } = await run(process.env.TORPOR_TEST_WS_CLIENT, [String(server.port), "/bytes?n=10"]);
  assert.match(stdout, /^error agent_unavailable /);
});
