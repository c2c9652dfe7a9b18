
const cards=[...document.querySelectorAll('.card')],find=document.querySelector('input'),none=document.createElement('p');
none.className='none';none.textContent='No trajectory matches.';none.hidden=true;document.querySelector('main').append(none);
const draw=c=>c.querySelectorAll('img:not([src])').forEach(i=>{const d=I[i.dataset.i];if(d)i.src=d});
let status='',words=null,due=0;
const sift=()=>{const q=find.value.toLowerCase();
if(q&&!words)words=cards.map(c=>c.textContent.toLowerCase());
cards.forEach((c,k)=>{c.hidden=!!(status&&c.dataset.s!==status)||!!(q&&!words[k].includes(q))});
none.hidden=cards.some(c=>!c.hidden)};
cards.forEach(c=>c.addEventListener('toggle',()=>{if(c.open)draw(c)}));
document.querySelectorAll('nav button').forEach(b=>b.addEventListener('click',()=>{status=b.dataset.s;
document.querySelectorAll('nav button').forEach(o=>o.classList.toggle('on',o===b));sift()}));
find.addEventListener('input',()=>{clearTimeout(due);due=setTimeout(sift,80)});
let shut=[];
addEventListener('beforeprint',()=>{shut=[...document.querySelectorAll('details:not([open])')];
shut.forEach(d=>{d.open=true});cards.forEach(draw)});
addEventListener('afterprint',()=>shut.forEach(d=>{d.open=false}));
if(cards.length){cards[0].open=true;draw(cards[0])}
