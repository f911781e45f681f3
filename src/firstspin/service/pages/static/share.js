// What can be taken along: the address of this newcomer, the request for a terminal, the answer as JSON.

const shown = document.getElementById("shown");

function show(title, text) {
  shown.querySelector("h2").textContent = title;
  shown.querySelector("pre").textContent = text;
  shown.showModal();
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // the browser forbids it, as for http on another host than this one
    show(button.textContent, text);
    return;
  }
  const label = button.textContent;
  button.textContent = "Copied";
  button.disabled = true;
  setTimeout(() => { button.textContent = label; button.disabled = false; }, 1200);
}

/** The request as a command for a POSIX shell. */
export function curl(origin, registration) {
  const body = JSON.stringify(registration).replaceAll("'", `'\\''`);
  return `curl -H 'content-type: application/json' -d '${body}' ${origin}/invocations`;
}

/** Wire the buttons; `last` gives the registration and the answer that are shown. */
export function share(last) {
  const on = (id, act) => document.getElementById(id).addEventListener("click", ({ currentTarget }) => act(currentTarget));
  on("link", (button) => copy(button, location.href));
  on("curl", (button) => copy(button, curl(location.origin, last().registration)));
  on("json", () => show("The service's answer", JSON.stringify(last().answer, null, 2)));
}
