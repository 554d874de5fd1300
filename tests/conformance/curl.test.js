// SPDX-License-Identifier: Apache-2.0
//
// curl as a client of our server: framings, Expect, HTTP/1.0, HEAD.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { startServer } from "./support.js";

let server;
before(async () => (server = await startServer()));
after(() => server.stop());

// What /bytes sends, and the sum that /count says of it.
const pattern = (n) => Buffer.from(Uint8Array.from({ length: n }, (_, i) => i % 251));
const counted = (bytes) => `${bytes.length} bytes, sum ${bytes.reduce((a, b) => a + b, 0)}\n`;

// Runs curl with `input` on its standard input. Its exit status must be `status`.
async function curl(args, { input, status = 0 } = {}) {
  const child = spawn("curl", ["--silent", "--show-error", "--max-time", "20", ...args]);
  const out = [];
  const err = [];
  child.stdout.on("data", (data) => out.push(data));
  child.stderr.on("data", (data) => err.push(data));
  child.stdin.on("error", () => {}); // a curl that was answered early does not read on
  child.stdin.end(input);
  const code = await new Promise((resolve) => child.on("close", resolve));
  const text = Buffer.concat(err).toString();
  assert.equal(code, status, text);
  return { body: Buffer.concat(out), err: text };
}

test("a body of unknown length is counted (-T -)", async () => {
  for (const n of [0, 1, 70000, 3 << 20]) {
    const body = pattern(n);
    const got = await curl(["-T", "-", "-X", "POST", `${server.url}/count`], { input: body });
    assert.equal(got.body.toString(), counted(body));
  }
});

test("a body of known length is counted", async () => {
  for (const n of [0, 1, 70000, 3 << 20]) {
    const body = pattern(n);
    const got = await curl(["--data-binary", "@-", `${server.url}/count`], { input: body });
    assert.equal(got.body.toString(), counted(body));
  }
});

test("Expect: 100-continue is answered before the body", async () => {
  const got = await curl(["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "15",
    "--data-binary", "@-", `${server.url}/count`], { input: pattern(2 << 20) });
  assert.match(got.err, /< HTTP\/1\.1 100 Continue/);
  assert.equal(got.body.toString(), counted(pattern(2 << 20)));
});

test("Expect: 100-continue and a refusal: the body is not sent", async () => {
  const got = await curl(["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "15",
    "--data-binary", "@-", `${server.url}/refuse`], { input: pattern(2 << 20) });
  assert.doesNotMatch(got.err, /100 Continue/);
  assert.match(got.err, /< HTTP\/1\.1 403/);
  assert.equal(got.body.toString(), "not read\n");
});

test("a refusal reaches a client that is sending", async () => {
  const got = await curl(["-H", "Expect:", "-o", "-", "-w", "%{http_code}",
    "--data-binary", "@-", `${server.url}/refuse`], { input: pattern(200 << 10) });
  assert.equal(got.body.toString(), "not read\n403");
});

test("HTTP/1.0: with and without a length", async () => {
  for (const page of ["bytes", "stream"]) {
    const got = await curl(["--http1.0", `${server.url}/${page}?n=100000`]);
    assert.ok(got.body.equals(pattern(100000)), page);
  }
});

test("HTTP/1.0: a body is counted", async () => {
  const got = await curl(["--http1.0", "--data-binary", "@-", `${server.url}/count`],
    { input: pattern(5000) });
  assert.equal(got.body.toString(), counted(pattern(5000)));
});

test("HEAD has the headers of GET and no body", async () => {
  const got = await curl(["-I", `${server.url}/bytes?n=12345`]);
  assert.match(got.body.toString(), /^HTTP\/1\.1 200 OK\r\n/);
  assert.match(got.body.toString(), /\r\nContent-Length: 12345\r\n/i);
  assert.match(got.body.toString(), /\r\n\r\n$/);
});

test("a body of any size comes, with and without a length", async () => {
  for (const n of [0, 1, 65536, 5 << 20]) {
    for (const page of ["bytes", "stream"]) {
      const got = await curl([`${server.url}/${page}?n=${n}`]);
      assert.ok(got.body.equals(pattern(n)), `${page} ${n}`);
    }
  }
});

test("ranges: parts, and what lies outside", async () => {
  for (const [range, from, to] of [["0-0", 0, 1], ["100-70000", 100, 70001], ["99990-", 99990, 100000],
    ["-5", 99995, 100000], ["99999-200000", 99999, 100000]]) {
    const got = await curl(["-r", range, "-w", "%{http_code} %header{content-range}", `${server.url}/bytes?n=100000`]);
    const text = `206 bytes ${from}-${to - 1}/100000`;
    assert.ok(got.body.equals(Buffer.concat([pattern(to).subarray(from), Buffer.from(text)])), range);
  }
  const got = await curl(["-r", "100000-", "-w", "%{http_code} %header{content-range}",
    `${server.url}/bytes?n=100000`]);
  assert.equal(got.body.toString(), "416 bytes */100000");
});

test("ranges: a download that broke off goes on where it was", async () => {
  const got = await curl(["-C", "70000", `${server.url}/bytes?n=100000`]);
  assert.ok(got.body.equals(pattern(100000).subarray(70000)));
});

test("one connection serves one request after the other", async () => {
  const url = (n) => `${server.url}/bytes?n=${n}`;
  const got = await curl(["-v", url(10), url(20), `${server.url}/nothing`, url(30)]);
  assert.equal(got.body.toString("latin1").length, 60 + "no such page\n".length);
  assert.equal(got.err.match(/Re-using existing connection/g)?.length, 3);
});

test("a client that stops reading in the middle does no harm", async () => {
  await curl(["--max-filesize", "1000", `${server.url}/bytes?n=100000000`], { status: 63 });
  const got = await curl([`${server.url}/bytes?n=3`]);
  assert.ok(got.body.equals(pattern(3)));
});
