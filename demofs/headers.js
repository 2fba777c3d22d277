// Shows what a HEAD request for this page is answered with. If there is no answer, the section stays hidden.
fetch(location.pathname, { method: "HEAD", cache: "no-store" }).then((answer) => {
  const section = document.getElementById("answered");
  const list = section.querySelector("dl");
  for (const [name, value] of answer.headers) {
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    description.textContent = value;
    list.append(term, description);
  }
  section.hidden = !answer.ok;
}, () => {});
