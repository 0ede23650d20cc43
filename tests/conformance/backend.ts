// What stands behind the router in the conformance runs: it answers with the body that it was sent, or with "ok"; /large has 4 MiB.
const large = new Uint8Array(4 << 20).fill(120);

Deno.serve({
  hostname: "127.0.0.1",
  port: 0,
  onListen: ({ port }) => console.log(`listening ${port}`),
}, async (request) => {
  if (new URL(request.url).pathname === "/large") return new Response(large);
  const body = await request.arrayBuffer();
  return new Response(body.byteLength > 0 ? body : "ok");
});
